"""Collective operations for the emulated device: through the host, by gloo, which knows the CPU and CUDA alone."""

from __future__ import annotations

import torch
from torch import Tensor
from torch import distributed as dist


class Done(dist._Work):
    """Work that is finished when it is handed out."""

    def wait(self, timeout=None) -> bool:
        return True

    def get_future(self) -> torch.futures.Future:
        future = torch.futures.Future()
        future.set_result(self.tensors)
        return future

    @classmethod
    def of(cls, tensors: list) -> Done:
        work = cls()
        work.tensors = tensors
        return work


class StagedGroup(dist.ProcessGroup):
    """Copies tensors to the host, lets gloo work on them, and copies the results back."""

    NAME = "staged"

    def __init__(self, store, rank: int, size: int, timeout):
        super().__init__(rank, size)
        self.gloo = dist.ProcessGroupGloo(store, rank, size, timeout)

    @classmethod
    def register(cls, device: str) -> None:
        dist.Backend.register_backend(cls.NAME, cls, devices=[device, "cpu"])

    def getBackendName(self) -> str:  # noqa: N802 (torch's name)
        return self.NAME

    def _staged(self, tensors: list[Tensor], run) -> Done:
        host = [tensor.cpu() for tensor in tensors]
        run(host).wait()
        for tensor, result in zip(tensors, host, strict=True):
            tensor.copy_(result)
        return Done.of(tensors)

    def allreduce(self, tensors, opts=None):
        opts = opts or dist.AllreduceOptions()
        return self._staged(tensors, lambda host: self.gloo.allreduce(host, opts))

    def broadcast(self, tensors, opts=None):
        opts = opts or dist.BroadcastOptions()
        return self._staged(tensors, lambda host: self.gloo.broadcast(host, opts))

    def allgather(self, outputs, inputs, opts=None):
        host = [[tensor.cpu() for tensor in row] for row in outputs]
        self.gloo.allgather(host, [tensor.cpu() for tensor in inputs]).wait()
        for row, results in zip(outputs, host, strict=True):
            for tensor, result in zip(row, results, strict=True):
                tensor.copy_(result)
        return Done.of(outputs)

    def all_gather_single(self, output, tensor, opts=None):
        return self.allgather([list(output.view(-1).chunk(self.size()))], [tensor.reshape(-1)])

    def barrier(self, opts=None):
        self.gloo.barrier().wait()
        return Done.of([])
