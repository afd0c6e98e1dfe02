"""Two processes under DistributedDataParallel, one of which meets frames without a single point.

With a synchronised norm on the edges, each waits for the other's part of the statistics.
"""

import pytest
import torch
from kd_pairs import FACTS, LOGITS, MAP, PILLARS, distil, pp
from support.ranks import call_in_ranks
from torch.nn.parallel import DistributedDataParallel


def train(rank: int, port: int, folder: str, synchronised: bool):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    stop = {"SCHEDULE": {"NAME": "stop", "EPOCHS": 1}}
    adapter = {"ADAPTER": {"TEACHER": "frozen", "STUDENT": "linear_bn_relu"}} if synchronised else {}
    distiller = distil(PILLARS | adapter, MAP | stop | adapter, LOGITS)
    model = DistributedDataParallel(distiller)
    if synchronised:  # the losses' norms alone, and behind DDP's back: torch has no synchronised ones for the CPU
        distiller.losses = torch.nn.SyncBatchNorm.convert_sync_batchnorm(distiller.losses)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    for epoch in range(2):
        distiller.set_epoch(epoch, 2)
        for it in range(2):
            batch = pp.random_batch(FACTS, frames=2, points=200, seed=10 * epoch + 2 * it + rank)
            if rank == 1 and it == 1:
                batch |= {k: v[:0] for k, v in batch.items() if k.startswith("voxel")}
            ret_dict, tb_dict, _ = model(batch)
            assert tb_dict["kd/total"] >= 0
            optimizer.zero_grad()
            ret_dict["loss"].backward()
            optimizer.step()
    shared = list(distiller.parameters())
    if synchronised:
        shared += [b for name, b in distiller.losses.named_buffers() if "running" in name]
    weights = torch.cat([p.detach().flatten() for p in shared])
    torch.save(weights, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("synchronised", [False, True])
def test_two_processes_keep_equal_weights_when_one_meets_empty_frames(tmp_path, synchronised):
    call_in_ranks(train, str(tmp_path), synchronised)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))
    assert torch.equal(first, second) and bool(first.isfinite().all())
