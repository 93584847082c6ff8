"""Cameras in a folder of COLMAP."""

from pathlib import Path

from geojax.geometry.camera import Camera
from geojax.geometry.colmap import camera_from_colmap

PLACES = ("sparse/0", "sparse", ".")
"""Where in a project the model lies."""


def read_colmap(folder: Path) -> tuple[Camera, list[str], str]:
    """Cameras, the names of their images, and the text they were read from.

    Raises:
      FileNotFoundError: no model in the folder.
      ValueError: a binary model, or a line that is none of the format.
    """
    for name in PLACES:
        model = folder / name
        if (model / "cameras.txt").is_file() and (model / "images.txt").is_file():
            break
        if (model / "cameras.bin").is_file():
            raise ValueError(
                f"{model} holds a binary model of COLMAP; write it as text: "
                f"colmap model_converter --input_path {model} --output_path {model} "
                "--output_type TXT"
            )
    else:
        raise FileNotFoundError(f"{folder} has no cameras.txt and images.txt of COLMAP")
    cameras, images = (model / "cameras.txt").read_text(), (model / "images.txt").read_text()
    try:
        camera, names = camera_from_colmap(cameras, images)
    except ValueError as error:
        raise ValueError(f"{model}: {error}") from error
    return camera, names, cameras + images
