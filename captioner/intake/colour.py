"""From whatever a file holds to 8 bits a channel in sRGB."""

import io

from PIL import Image, ImageCms

from captioner.intake.limits import MAX_PROFILE_BYTES


def eight_bits(image: Image.Image) -> Image.Image:
    """The image in a mode that can be scaled: L, RGB, RGBA or CMYK; RGBA where any of it is transparent."""
    if image.mode.startswith("I;16"):  # conversion alone would clip at 255
        return image.point(lambda value: value / 256).convert("L")
    if image.has_transparency_data and image.mode != "RGBA":
        return image.convert("RGBA")
    if image.mode in ("1", "P"):
        return image.convert("L" if image.mode == "1" else "RGB")
    return image


def srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """An RGB copy of `image`, on white where it is transparent, converted by its ICC profile unless that is missing,
    broken or a trap.
    """
    if image.mode == "RGBA":
        background = Image.new("RGB", image.size, "white")
        background.paste(image, mask=image.getchannel("A"))
        image = background
    # lcms takes quadratic time for a chain of "multi process elements" (ICC 4.3), which no camera writes.
    if profile and len(profile) <= MAX_PROFILE_BYTES and b"mpet" not in profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                target = ImageCms.createProfile("sRGB")
                return ImageCms.buildTransform(source, target, image.mode, "RGB").apply(image)
        except (ImageCms.PyCMSError, OSError):
            pass  # colours as most programs would show them
    return image.convert("RGB")
