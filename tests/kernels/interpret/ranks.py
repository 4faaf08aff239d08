"""What two gloo processes do in test_ranks.py: run as `python ranks.py CASE RANK FILE`."""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.distributed as dist

import kernels
from kernels.interpreter import Meter, install
from kernels.linear_crossentropy import linear_cross_entropy_ref

OPTIONS = [
    {},
    {"label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 5.0, "class_weight": True},
    {"reduction": "sum", "shift": True},
]


def inputs():
    torch.manual_seed(3)
    hidden, weight = torch.randn(2, 5, 16), torch.randn(42, 16)
    targets = torch.randint(0, 42, (2, 5))
    targets[0, 2] = -100
    return hidden, weight, targets


def vocab_parallel(rank):
    """Loss and gradients of two shards equal those of the whole vocabulary, on either path."""
    for mode in ("triton", "torch"):
        kernels.use(mode)
        for options in OPTIONS:
            options = dict(options)
            if options.pop("class_weight", False):
                options["class_weight"] = torch.linspace(0.5, 2, 42)
            hidden, weight, targets = inputs()
            hidden.requires_grad_()
            whole = weight.clone().requires_grad_()
            expected = linear_cross_entropy_ref(hidden, whole, targets, **options)
            dh, dw = torch.autograd.grad(expected, (hidden, whole))
            mine = slice(21 * rank, 21 * rank + 21)
            shard = weight[mine].clone().requires_grad_()
            loss = kernels.linear_cross_entropy(
                hidden, shard, targets, group=dist.group.WORLD, **options
            )
            got = torch.autograd.grad(loss, (hidden, shard))
            torch.testing.assert_close(loss, expected)
            torch.testing.assert_close(got[0], dh)
            torch.testing.assert_close(got[1], dw[mine])


def zero3(rank):
    """A model whose head is sharded by ZeRO-3 trains as it does on one rank."""
    import deepspeed

    kernels.use("triton")
    dtype = torch.float32

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(7)
            self.inner = torch.nn.Linear(16, 32)
            self.norm = torch.nn.Parameter(torch.ones(16))
            self.head = kernels.LinearCrossEntropy(16, 42, dtype=dtype)

        def forward(self, hidden, targets):
            gate, up = self.inner(hidden).chunk(2, -1)
            return self.head(kernels.rms_norm(kernels.swiglu(gate, up), self.norm), targets)

    hidden, _, targets = inputs()
    alone = Model()
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.5)
    expected = []
    for _ in range(3):
        loss = alone(hidden, targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        expected.append(loss.item())
    sharded = Model()
    engine, *_ = deepspeed.initialize(
        model=sharded,
        optimizer=torch.optim.SGD(sharded.parameters(), lr=0.5),
        config={
            "train_micro_batch_size_per_gpu": 2,
            "zero_allow_untested_optimizer": True,
            "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
        },
    )
    assert engine.module.head.weight.numel() == 0, "the head is not sharded"
    for value in expected:
        loss = engine(hidden, targets)
        engine.backward(loss)
        engine.step()
        assert abs(loss.item() - value) < 1e-4, (loss.item(), value)


def main():
    case, rank, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    install()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    with Meter() as meter:
        {"vocab_parallel": vocab_parallel, "zero3": zero3}[case](rank)
    assert meter.programs, "no Triton kernel ran: this was the reference path"
    print("kernels:", ", ".join(sorted(meter.programs)))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
