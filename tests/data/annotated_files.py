"""Small images and label images, and the directories and archives that they are written to."""

import io
import tarfile
import zipfile

import numpy as np
from PIL import Image


def picture(seed, height=6, width=8):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def png(pixels, mode=None):
    """Encoded; of a palette where the mode is P."""
    image = Image.fromarray(pixels)
    if mode == "P":
        image.putpalette([value for number in range(256) for value in (number, 255 - number, 7)])
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def write_folder(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def write_archive(path, contents):
    contents = {name: content if isinstance(content, bytes) else content.encode() for name, content in contents.items()}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file:
            for name, content in contents.items():
                file.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as tar:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path
