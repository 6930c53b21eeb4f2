"""The mode in which "cuda" means the host: for devices and type names, in one thread, and no further."""

import threading

import pytest

torch = pytest.importorskip("torch")  # medserl without its extras has none

from medserl.cpu.cuda_names import CPU, CudaToCPU, HostStream  # noqa: E402


@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:1"])
@pytest.mark.parametrize("as_text", [True, False])
def test_new_tensors_are_the_hosts(device: str, as_text: bool) -> None:
    given = device if as_text else torch.device(device)
    with CudaToCPU():
        assert torch.zeros(2, device=given).device == CPU
        assert torch.tensor([0.0], dtype=torch.float, device=given).device == CPU
        assert torch.ones(2).to(given).device == CPU
        assert torch.ones(2).to(given, torch.bfloat16).dtype == torch.bfloat16
        assert torch.empty_like(torch.ones(2), device=given).device == CPU


def test_other_devices_are_left_alone() -> None:
    with CudaToCPU():
        assert torch.zeros(2, device="meta").device.type == "meta"
        assert torch.zeros(2).to("meta").device.type == "meta"


@pytest.mark.parametrize(
    ("dtype", "name"),
    [(torch.float32, "torch.cuda.FloatTensor"), (torch.bfloat16, "torch.cuda.BFloat16Tensor")],
)
def test_type_names_are_those_of_a_gpu(dtype: "torch.dtype", name: str) -> None:
    tensor = torch.zeros(1, dtype=dtype)
    with CudaToCPU():
        assert tensor.type() == name
        assert tensor.type(torch.float64).dtype == torch.float64  # with an argument it is a conversion
    assert tensor.type() == name.replace("cuda.", "")


def test_mode_ends_with_its_block_and_stays_in_its_thread() -> None:
    seen = []
    with CudaToCPU():
        thread = threading.Thread(target=lambda: seen.append(torch.zeros(1).type()))
        thread.start()
        thread.join()
    assert seen == ["torch.FloatTensor"]
    assert torch.zeros(1).type() == "torch.FloatTensor"


def test_gradients_are_the_same_inside() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    (x.exp() @ torch.ones(3)).sum().backward()
    wanted, x.grad = x.grad, None
    with CudaToCPU():
        (x.exp() @ torch.ones(3, device="cuda")).sum().backward()
    assert torch.equal(x.grad, wanted)


def test_streams_have_nothing_to_wait_for() -> None:
    stream = HostStream(device="cuda")
    with stream:
        stream.wait_stream(HostStream())
        stream.synchronize()
    assert stream.query()
