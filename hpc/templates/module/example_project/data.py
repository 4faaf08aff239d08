"""The dataset: any map-style dataset, whose examples are (inputs ..., targets ...)."""

import numpy as np
from sklearn.datasets import load_breast_cancer


class Tumours:
    """569 tumours: measurements float32 [30], and the diagnosis, 0 malignant or 1 benign."""

    def __init__(self) -> None:
        measurements, self.diagnoses = load_breast_cancer(return_X_y=True)
        self.measurements = measurements.astype(np.float32)

    def __len__(self) -> int:
        return len(self.diagnoses)

    def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
        return self.measurements[row], int(self.diagnoses[row])
