"""One of the two gloo processes of test_ranks.py: `python ranks.py CASE RANK FILE`."""

import os
import sys

os.environ["TRITON_INTERPRET"] = "1"

import torch
import torch.distributed as dist

import kernels
from hpc.models.transformer import TransformerConfig
from hpc.models.transformer_network import Transformer
from kernels.analysis.interpreter import Meter, install
from kernels.ops.loss.linear_crossentropy import linear_cross_entropy_ref

OPTIONS = [
    {},
    {"label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 5.0, "class_weight": True},
    {"reduction": "sum", "shift": True},
]


def inputs():
    torch.manual_seed(3)
    hidden, weight = torch.randn(2, 5, 16), torch.randn(42, 16)
    targets = torch.randint(0, 42, (2, 5))
    targets[:, 3] = (hidden @ weight.T)[:, 3].argmax(-1)
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
            whole, bias = weight.clone().requires_grad_(), torch.randn(42).requires_grad_()
            expected = linear_cross_entropy_ref(hidden, whole, targets, bias=bias, **options)
            dh, dw, db = torch.autograd.grad(expected, (hidden, whole, bias))
            mine = slice(21 * rank, 21 * rank + 21)
            shard, own = (x.detach()[mine].clone().requires_grad_() for x in (weight, bias))
            loss = kernels.linear_cross_entropy(
                hidden, shard, targets, bias=own, group=dist.group.WORLD, **options
            )
            got = torch.autograd.grad(loss, (hidden, shard, own))
            torch.testing.assert_close(loss, expected)
            torch.testing.assert_close(got[0], dh)
            torch.testing.assert_close(got[1], dw[mine])
            torch.testing.assert_close(got[2], db[mine])
            found = kernels.linear_cross_entropy(
                hidden, shard, targets, bias=own, group=dist.group.WORLD, statistics=True, **options
            )
            whole_found = linear_cross_entropy_ref(
                hidden, whole, targets, bias=bias, statistics=True, **options
            )
            assert whole_found.correct.any() and not whole_found.correct.all()
            torch.testing.assert_close(tuple(found), tuple(whole_found))


def zero3(tied):
    """A transformer sharded by ZeRO-3 trains on the kernels as it does on torch ops."""
    import deepspeed

    config = TransformerConfig(
        vocabulary=61, context=16, width=32, layers=2, heads=2, hidden=64, tied=tied
    )

    text = (torch.arange(17) * 3 + dist.get_rank()) % 61

    def curve(mode):
        kernels.use(mode)
        torch.manual_seed(7)
        model = Transformer(config)
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=torch.optim.SGD(model.parameters(), lr=0.15),
            config={
                "train_micro_batch_size_per_gpu": 1,
                "gradient_clipping": 0.0,
                "zero_allow_untested_optimizer": True,
                "zero_optimization": {"stage": 3, "stage3_param_persistence_threshold": 0},
            },
        )
        sharded = [weight.numel() == 0 for weight in engine.module.parameters()]
        assert all(sharded), "a weight is not sharded"
        losses = []
        for _ in range(4):
            loss = engine(text[None, :-1], text[None, 1:])
            engine.backward(loss)
            engine.step()
            losses.append(loss.item())
        found = [name for name, part in engine.module.named_modules() if outside(part)]
        assert not found, f"weights used outside of their module, in {found}"
        return torch.tensor(losses)

    interpreted, plain = curve("triton"), curve("torch")
    assert interpreted[-1] < interpreted[0] - 0.3, interpreted
    torch.testing.assert_close(interpreted, plain, rtol=1e-5, atol=1e-5)


def outside(module):
    """Weights of other modules in this one's forward: DeepSpeed may notice, or they are empty."""
    return getattr(module, "_external_params", {})


def main():
    case, rank, file = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    install()
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    with Meter() as meter:
        if case == "vocab_parallel":
            vocab_parallel(rank)
        else:
            zero3(tied=case == "zero3_tied")
    assert meter.programs, "no Triton kernel ran: this was the reference path"
    print("kernels:", ", ".join(sorted(meter.programs)), flush=True)
    dist.destroy_process_group()
    # As hpc/jobs/rank/entry.py leaves, and for its reason.
    os._exit(0)


if __name__ == "__main__":
    main()
