import torch
from torch import nn

from pcdet.utils.model_stats import count_macs, count_parameters


def test_parameters_of_a_convolution_by_hand():
    assert count_parameters(nn.Conv2d(3, 8, 3)) == 3 * 8 * 9 + 8


def test_macs_of_a_convolution_are_output_cells_times_kernel_times_channels():
    model = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    assert count_macs(model, torch.zeros(1, 3, 10, 12)) == 10 * 12 * 8 * 3 * 9


def test_macs_of_a_linear_layer_are_rows_times_inputs_times_outputs():
    assert count_macs(nn.Linear(5, 7), torch.zeros(11, 5)) == 11 * 5 * 7
