"""Where bfloat16 is multiplied, and where it is asked for."""

import pytest
import torch

from musti_model import device

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize("units", [True, False])
def test_a_cpu_multiplies_bfloat16_where_it_has_units_for_it(monkeypatch, units):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: units, raising=False)
    assert device.multiplies_bfloat16(CPU) == units and device.multiplies_bfloat16(CUDA)
    assert device.choose_device("cpu") == (CPU, torch.bfloat16 if units else None)
    one = torch.ones(1, 1)
    for precision, half in (("auto", units), ("bf16", True), ("float32", False)):
        with device.autocast(CPU, precision):
            assert (one @ one).dtype == (torch.bfloat16 if half else torch.float32)
    with device.autocast(CPU):
        assert (one @ one).dtype == (torch.bfloat16 if units else torch.float32)
