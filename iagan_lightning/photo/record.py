"""What is said of a photograph that is done: one line for it and one for each face, and the same as JSON."""

from __future__ import annotations

import math
from typing import Any

from iagan_lightning.safety import printable

VERSION = 1
Record = dict[str, Any]


def lines(record: Record) -> list[str]:
    r"""Return the lines of a photograph: what it was and became, remarks, and its faces.

    Example:
        >>> face = {"eyes": [[10.0, 20.0], [24.0, 20.0]], "distance": 14.0, "done": True, "prior": "faces64",
        ...         "residual": 0.02, "seconds": 3.21}
        >>> record = {"image": "a.jpg", "output": "a_iagan.png", "size": [60, 80], "scale": 2, "noise_std": 0.0,
        ...           "agreement": 0.25, "remarks": [], "faces": [face, face | {"done": False, "why": "small"}]}
        >>> print("\n".join(lines(record)))
        a.jpg: 80 x 60 to 160 x 120 pixels, a_iagan.png, agrees within 0.3/255; 1 of 2 faces restored
          face 1 at (17, 20): restored with faces64, residual 0.020, 3 s
          face 2 at (17, 20): left as the plain enlargement, small
    """
    height, width = record["size"]
    scale, faces = record["scale"], record["faces"]
    to = f" to {width * scale} x {height * scale}" if scale > 1 else ""
    done = sum(face["done"] for face in faces)
    soft = any("blur" in face for face in faces if face["done"])
    if (record["noise_std"] or soft) and done:
        noise = f"noise {255 * record['noise_std']:.1f}/255" if record["noise_std"] else ""
        agrees = " and ".join(filter(None, [noise, "blurred faces" if soft else ""]))
    else:
        agrees = f"agrees within {math.ceil(10 * record['agreement']) / 10:.1f}/255"
    if faces:
        found = f"{done} of {len(faces)} {'face' if len(faces) == 1 else 'faces'} restored"
    else:
        found = "no face was found, so it is the plain enlargement" if scale > 1 else "no face was found: unchanged"
    name, output = printable(record["image"]), printable(record["output"])
    head = f"{name}: {width} x {height}{to} pixels, {output}, {agrees}; {found}"
    return [head, *(f"  {remark}" for remark in record["remarks"]), *map(_of_face, range(1, len(faces) + 1), faces)]


def _of_face(number: int, face: Record) -> str:
    (left, top), (right, bottom) = face["eyes"]
    where = f"  face {number} at ({(left + right) / 2:.0f}, {(top + bottom) / 2:.0f}): "
    if not face["done"]:
        return f"{where}left as the plain enlargement, {face['why']}"
    sigmas = f" ({face['sigmas']:.2f} times the noise)" if "sigmas" in face else ""
    blur = f", blur {face['blur']:.1f} pixels" if "blur" in face else ""
    said = f"{where}restored with {face['prior']}{blur}, residual {face['residual']:.3f}{sigmas}"
    return f"{said}, {face['seconds']:.0f} s"
