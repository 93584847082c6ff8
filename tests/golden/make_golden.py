"""Make models.npz: what PyTorch's networks give for the cases.

python -m tests.golden.make_golden     (needs the extra [torch])
"""

import inspect

import diffusers
import numpy as np
import torch
import transformers

from tests.golden import cases


def torch_network(case: cases.Case) -> torch.nn.Module:
    """The network in PyTorch, in evaluation mode, with the weights of `cases.tensor`."""
    if case.class_name == "CLIPTextModel":
        model = transformers.CLIPTextModel(transformers.CLIPTextConfig(**case.config))
    else:
        cls = getattr(diffusers, case.class_name)
        known = inspect.signature(cls.__init__).parameters
        assert set(case.config) <= set(known), set(case.config) - set(known)
        model = cls(**case.config)
    state = model.state_dict()
    model.load_state_dict(
        {k: torch.from_numpy(cases.tensor(k, tuple(v.shape))) for k, v in state.items()}
    )
    return model.eval()


def to_torch(image: np.ndarray) -> torch.Tensor:
    """[B, H, W, C] -> [B, C, H, W]."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))


def to_numpy(image: torch.Tensor) -> np.ndarray:
    """[B, C, H, W] -> [B, H, W, C]."""
    return image.detach().numpy().transpose(0, 2, 3, 1)


def outputs(case: cases.Case) -> dict[str, np.ndarray]:
    """Name -> output of the case."""
    model = torch_network(case)
    if case.class_name == "UNet2DConditionModel":
        sample, t, y = cases.unet_inputs(case.config)
        found = model(to_torch(sample), torch.from_numpy(t), torch.from_numpy(y)).sample
        return {"sample": to_numpy(found)}
    if case.class_name == "AutoencoderKL":
        posterior = model.encode(to_torch(cases.noise("image", 1, 16, 24, 3))).latent_dist
        image = model.decode(to_torch(cases.noise("latent", 1, 4, 6, 4))).sample
        return {
            "mean": to_numpy(posterior.mean),
            "logvar": to_numpy(posterior.logvar),
            "image": to_numpy(image),
        }
    ids = torch.from_numpy(cases.token_ids()).long()
    return {"state": model(ids).last_hidden_state.numpy()}


def main() -> None:
    """Write the file."""
    arrays = {}
    with torch.no_grad():
        for name, case in cases.CASES.items():
            for part, value in outputs(case).items():
                arrays[f"{name}.{part}"] = np.ascontiguousarray(value)
    np.savez_compressed(cases.GOLDEN, **arrays)
    for name, value in arrays.items():
        print(f"{name:24s} {value.shape!s:18s} std {value.std():.3f}")
    print(f"{cases.GOLDEN.stat().st_size} bytes")


if __name__ == "__main__":
    main()
