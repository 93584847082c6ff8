"""The stages of `train_worlds`."""
