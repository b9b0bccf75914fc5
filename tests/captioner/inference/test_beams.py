"""The rules of beam search on one photo, by hand."""

from captioner.inference.beams import Beams, Continuation

END = 9


def beams(width: int = 2, **rules: object) -> Beams:
    return Beams(width, end_ids=frozenset({END}), max_length=5, **rules)


def steps(*each: tuple[int, int, float]) -> list[Continuation]:
    return [Continuation(origin, token, score, score) for origin, token, score in each]


def running(subject: Beams) -> list[tuple[int, ...]]:
    return [each.token_ids for each in subject.running]


def finished(subject: Beams) -> list[tuple[int, ...]]:
    return [each.token_ids for each in subject.finished]


def test_the_best_that_did_not_end_go_on() -> None:
    subject = beams()
    subject.advance(steps((0, 1, -1.0), (0, END, -2.0), (0, 2, -3.0), (0, 3, -4.0)))
    assert running(subject) == [(1,), (2,)]
    assert finished(subject) == [(END,)]
    assert not subject.is_done


def test_a_caption_may_not_finish_from_behind_the_beam() -> None:
    subject = beams()
    subject.advance(steps((0, 1, -1.0), (0, 2, -2.0), (0, END, -3.0), (0, 3, -4.0)))
    assert finished(subject) == []


def test_it_is_done_when_no_running_caption_can_beat_the_finished_ones() -> None:
    subject = beams(length_penalty=0.0)
    subject.advance(steps((0, END, -1.0), (0, 1, -2.0), (0, 2, -2.5), (0, 3, -4.0)))
    subject.advance(steps((0, END, -2.1), (1, 4, -2.2), (0, 5, -2.3), (1, 6, -9.0)))
    assert finished(subject) == [(END,), (1, END)]
    assert subject.is_done


def test_a_better_running_caption_keeps_it_going_and_drives_the_worse_one_out() -> None:
    subject = beams(length_penalty=1.0)
    subject.advance(steps((0, END, -1.0), (0, 1, -2.0), (0, 2, -2.5), (0, 3, -4.0)))
    subject.advance(steps((0, 4, -2.1), (1, END, -3.0), (0, 5, -3.3), (1, 6, -9.0)))
    assert finished(subject) == [(END,), (2, END)]
    assert not subject.is_done  # (1, 4) stands at -1.05 a token
    subject.advance(steps((0, END, -2.4), (0, 7, -2.9), (1, 8, -9.0), (1, 7, -9.0)))
    assert finished(subject) == [(1, 4, END), (END,)]


def test_early_stopping_takes_the_first_captions_that_finish() -> None:
    subject = beams(early_stopping=True)
    subject.advance(steps((0, END, -5.0), (0, 1, -5.5), (0, 2, -6.0), (0, 3, -7.0)))
    subject.advance(steps((0, 4, -5.6), (0, END, -5.7), (1, 5, -6.3), (1, 6, -9.0)))
    assert subject.is_done


def test_what_is_done_takes_no_more() -> None:
    subject = beams(early_stopping=True)
    subject.advance(steps((0, END, -5.0), (0, 1, -5.5), (0, 2, -6.0), (0, 3, -7.0)))
    subject.advance(steps((0, END, -5.6), (0, 4, -5.7), (1, 5, -6.3), (1, 6, -9.0)))
    before = subject.finished
    subject.advance(steps((0, END, -0.1), (1, END, -0.2), (0, 5, -6.3), (1, 6, -9.0)))
    assert subject.finished == before


def test_at_full_length_every_caption_of_the_beam_finishes() -> None:
    subject = Beams(2, end_ids=frozenset({END}), max_length=1)
    subject.advance(steps((0, 1, -1.0), (0, 2, -2.0), (0, 3, -3.0), (0, 4, -4.0)))
    assert finished(subject) == [(1,), (2,)]
    assert subject.is_done
