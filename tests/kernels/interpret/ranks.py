"""What two gloo processes do in test_ranks.py: run as `python ranks.py CASE RANK FILE`."""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.distributed as dist

import kernels
from kernels import linear_crossentropy
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
    """A model whose head is sharded by ZeRO-3 trains on the kernels as it does on torch ops."""
    import deepspeed

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(7)
            self.inner = torch.nn.Linear(16, 32)
            self.norm = torch.nn.Parameter(torch.ones(16))
            self.head = kernels.LinearCrossEntropy(16, 42)

        def forward(self, hidden, targets):
            gate, up = self.inner(hidden).chunk(2, -1)
            return self.head(kernels.rms_norm(kernels.swiglu(gate, up), self.norm), targets)

    def curve():
        model = Model()
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.5),
            config={
                "train_micro_batch_size_per_gpu": 2,
                "zero_allow_untested_optimizer": True,
                "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            },
        )
        assert engine.module.head.weight.numel() == 0, "the head is not sharded"
        losses = []
        for _ in range(3):
            loss = engine(hidden, targets)
            engine.backward(loss)
            engine.step()
            losses.append(loss.item())
        return torch.tensor(losses)

    hidden, _, targets = inputs()
    kernels.use("triton")
    interpreted = curve()
    kernels.use("torch")
    fused, linear_crossentropy.linear_cross_entropy = (
        linear_crossentropy.linear_cross_entropy, linear_cross_entropy_ref
    )  # fmt: skip
    plain = curve()
    linear_crossentropy.linear_cross_entropy = fused
    assert interpreted[-1] < interpreted[0] - 0.5, interpreted
    torch.testing.assert_close(interpreted, plain, rtol=1e-5, atol=1e-5)


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
