from captioner.inference.drawings import drawn_images


def test_drawings_are_the_same_every_time_and_differ_from_each_other() -> None:
    drawings = [image.tobytes() for image in drawn_images(20)]
    assert drawings == [image.tobytes() for image in drawn_images(20)]
    assert len(set(drawings)) == len(drawings)
