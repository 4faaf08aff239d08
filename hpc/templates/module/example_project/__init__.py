"""The network, the dataset and the gate that `conf/` names by `_target_`."""
