"""The network: any torch.nn.Module with tensors in and out."""

from torch import Tensor, nn


class Net(nn.Module):
    """Measurements (B, measurements) to a score per class (B, classes)."""

    def __init__(self, measurements: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm1d(measurements),
            nn.Linear(measurements, hidden),
            nn.ReLU(),
            nn.Linear(hidden, classes),
        )

    def forward(self, measurements: Tensor) -> Tensor:
        return self.layers(measurements.log1p())
