"""A second device for tests: it computes on the CPU, and refuses to mix with CPU tensors where a GPU would.

It is PyTorch's backend for other devices, `privateuseone`, under the name `standin`. A tensor on it wraps one on the
CPU. Only `.to`, `.cpu` and `copy_` cross the border, and, as on a GPU, numbers without dimensions and indices on the
CPU. Call `register` before the first backward pass, since autograd counts the devices once, and only where PyTorch has
no other accelerator, since autograd waits for one kind alone.
"""
import torch
from torch.library import Library
from torch.utils._pytree import tree_flatten, tree_map
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend

NAME = "standin"
DEVICE = torch.device("privateuseone", 0)
MEMORY = 2**40   # bytes that the device claims to have
CROSSING = {"aten::_to_copy", "aten::copy_"}
INDEXED = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}


class BackendModule(_DummyBackendModule):
    """What `torch.get_device_module` returns for the device: its memory, and the types that autocast knows."""

    free = MEMORY

    def get_amp_supported_dtype(self):
        return [torch.bfloat16]

    def get_device_name(self, device=None):
        return "stand-in"

    def mem_get_info(self, device=None):
        return self.free, MEMORY

    def memory_reserved(self, device=None):
        return 0

    memory_allocated = max_memory_allocated = memory_reserved

    def reset_peak_memory_stats(self, device=None):
        pass

    def synchronize(self, device=None):
        pass

    def empty_cache(self):
        pass


class StandInTensor(torch.Tensor):
    """A tensor on the stand-in device; `on_cpu` holds its values."""

    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, on_cpu):
        return torch.Tensor._make_wrapper_subclass(
            cls, on_cpu.size(), strides=on_cpu.stride(), storage_offset=on_cpu.storage_offset(),
            dtype=on_cpu.dtype, device=DEVICE)

    def __init__(self, on_cpu):
        self.on_cpu = on_cpu

    def __repr__(self):
        return f"{self.on_cpu!r} on {NAME}"

    def tolist(self):
        return self.cpu().tolist()   # PyTorch refuses it for subclasses

    @classmethod
    def __torch_dispatch__(cls, operator, types, args=(), kwargs=None):
        return compute(operator, args, kwargs or {})


def refuse(operator, found):
    """Raise what a GPU raises."""
    raise RuntimeError(f"Expected all tensors to be on the same device, but {operator._schema.name} found {found}")


def check_devices(operator, args, kwargs):
    """Refuse tensors on the CPU, but for those that a GPU accepts."""
    name = operator._schema.name
    tensors = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Tensor)]
    on_cpu = [x for x in tensors if not isinstance(x, StandInTensor) and x.dim() > 0]
    if not on_cpu or name in CROSSING or len(on_cpu) == len(tensors):
        return
    if name in INDEXED:
        values = args[2:3]   # of index_put
        if isinstance(args[0], StandInTensor) and not any(x is value for x in on_cpu for value in values):
            return
    refuse(operator, f"{NAME} and cpu")


def check_generator(operator, args, kwargs, device):
    """Refuse a generator on the CPU where the result is on the device."""
    generators = [x for x in tree_flatten((args, kwargs))[0] if isinstance(x, torch.Generator)]
    if generators and device.type == NAME:
        refuse(operator, "a generator on the cpu")


def result_device(operator, args, kwargs):
    """Find the device of an operator's result: the one that is asked for, or else that of its tensors."""
    if kwargs.get("device") is not None:
        return torch.device(kwargs["device"])
    on_device = any(isinstance(x, StandInTensor) for x in tree_flatten((args, kwargs))[0])
    if operator._schema.name == "aten::copy_":
        on_device = isinstance(args[0], StandInTensor)
    return DEVICE if on_device else torch.device("cpu")


def compute(operator, args, kwargs):
    """Compute an operator on the CPU; what it changes in place stays the tensor that it was."""
    check_devices(operator, args, kwargs)
    device = result_device(operator, args, kwargs)
    check_generator(operator, args, kwargs, device)
    wrapped = {}

    def unwrap(x):
        if isinstance(x, StandInTensor):
            wrapped[id(x.on_cpu)] = x
            return x.on_cpu
        return torch.device("cpu") if isinstance(x, torch.device) else x

    def wrap(x):
        if not isinstance(x, torch.Tensor) or isinstance(x, StandInTensor) or device.type != NAME:
            return x
        known = wrapped.get(id(x))
        return StandInTensor(x) if known is None else known

    args, kwargs = tree_map(unwrap, (args, kwargs))
    if operator._schema.name == "aten::_to_copy":   # a copy, also where only the device changes
        return wrap(args[0].clone() if set(kwargs) <= {"device", "non_blocking"} else operator(*args, **kwargs))
    return tree_map(wrap, operator(*args, **kwargs))


def register():
    """Register the device; return its libraries, which must stay alive."""
    _setup_privateuseone_for_python_backend(rename=NAME, backend_module=BackendModule())
    library = Library("_", "IMPL")
    library.fallback(lambda operator, *args, **kwargs: compute(operator, args, kwargs), "PrivateUse1")
    library.fallback(torch.library.fallthrough_kernel, "AutocastPrivateUse1")   # whatever precision is asked for
    copies = Library("aten", "IMPL")   # by its name: `torch.tensor([1], device=…)` copies where a fallback is not found
    copies.impl("copy_", lambda *args, **kwargs: compute(torch.ops.aten.copy_.default, args, kwargs), "PrivateUse1")
    return library, copies
