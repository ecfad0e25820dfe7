"""A response whose socket is lost: resumed, left alone, forgotten; and readers that are slow."""

from pathlib import Path

from backend.engine.messages import Output
from backend.server.identity import Identity
from backend.server.limits import Limits
from backend.text.tokenizer import TextTokenizer
from tests.server.conftest import House, make_house
from tests.server.session.conftest import Desk, begun, create, names, numbers, said


def test_resume_goes_on_where_it_was_left(desk: Desk) -> None:
    response, request = begun(desk, texts=["A", " croissant"], stream_id="a")
    seen = list(desk.sent)
    desk.close()
    for text in (" costs", " three", " euros"):
        assert desk.engine(request, Output(request, desk.ids(text))) == []
    assert desk.abandoned == []
    other = desk.socket()
    replayed = desk.say({"type": "x.resume", "response_id": response, "after": numbers(seen)[-3]}, other)
    assert numbers(replayed)[0] == numbers(seen)[-3] + 1
    live = desk.engine(request, Output(request, [desk.end_token], "stop"))
    both = [*seen, *replayed[2:], *live]
    assert replayed[:2] == seen[-2:]
    assert numbers(both) == list(range(len(both)))
    assert said(both) == "A croissant costs three euros" and live[-1]["type"] == "response.completed"
    assert {event["stream_id"] for event in both} == {"a"}
    # what nobody had taken is one delta
    assert [event["delta"] for event in replayed[2:]] == [" costs three euros"]


def test_a_response_that_has_ended_can_be_read_again_for_a_while(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"])
    desk.close()
    desk.engine(request, Output(request, [desk.end_token], "stop"))
    end = desk.now
    first = desk.say({"type": "x.resume", "response_id": response}, desk.socket())
    assert numbers(first) == list(range(len(first))) and first[-1]["type"] == "response.completed"
    assert desk.say({"type": "x.resume", "response_id": response}, desk.socket()) == first
    desk.responses.tick(end + 89)
    late = desk.socket()
    assert desk.say({"type": "x.resume", "response_id": response, "after": len(first) - 1}, late) == []
    assert not late.busy
    desk.responses.tick(end + 90)
    (gone,) = desk.say({"type": "x.resume", "response_id": response}, desk.socket())
    assert gone["error"]["code"] == "response_not_found"


def test_nobody_comes_back(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"])
    desk.close()
    desk.responses.tick(desk.now + 29)
    assert desk.abandoned == []
    desk.responses.tick(desk.now + 30)
    assert desk.abandoned == [request] and len(desk.responses) == 0
    ended = desk.say({"type": "x.resume", "response_id": response}, desk.socket())
    assert ended[-1]["response"]["incomplete_details"] == {"reason": "cancelled"}


def test_without_our_subprotocol_it_ends_with_the_socket(quiet_house: House) -> None:
    desk = Desk(quiet_house, extensions=False)
    response, request = begun(desk, texts=["A"])
    desk.close()
    assert desk.abandoned == [request] and len(desk.responses) == 0
    (refused,) = desk.say({"type": "x.resume", "response_id": response}, desk.socket())
    assert refused["error"]["code"] == "response_not_found"


def test_a_socket_that_is_only_half_gone_loses_its_response(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"], stream_id="a")
    other = desk.socket()
    replayed = desk.say({"type": "x.resume", "response_id": response}, other)
    live = desk.engine(request, Output(request, desk.ids(" croissant")))
    assert said(replayed + live) == "A croissant" and len(live) == 1  # once, not on both
    desk.close()  # of the first socket
    assert desk.abandoned == []
    assert names(desk.say(create(stream_id="a"))) == []
    assert desk.say({"type": "response.cancel", "response_id": response}, other)[-1]["type"] == "response.incomplete"


def test_others_can_neither_resume_nor_cancel_nor_continue_it(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"])
    thief = desk.socket(identity=Identity("thief", "k", frozenset({"chat"})))
    for event, code in (
        ({"type": "x.resume", "response_id": response}, "response_not_found"),
        ({"type": "response.cancel", "response_id": response}, "response_not_found"),
        (create(previous_response_id=response), "previous_response_not_found"),
    ):
        (refused,) = desk.say(event, thief)
        assert refused["error"]["code"] == code
    desk.engine(request, Output(request, [desk.end_token], "stop"))
    (refused,) = desk.say(create(previous_response_id=response), thief)
    assert refused["error"]["code"] == "previous_response_not_found"
    for wrong in (response[:-1], response.upper(), response + "0"):
        assert desk.say({"type": "x.resume", "response_id": wrong})[0]["error"]["code"] == "response_not_found"
    assert desk.abandoned == []


def test_a_gap_is_said(folder: Path, tokenizer: TextTokenizer) -> None:
    desk = Desk(make_house(folder, tokenizer, Limits(ring_bytes=2000)))
    response, request = begun(desk, texts=["A"] * 40)
    (gap,) = desk.say({"type": "x.resume", "response_id": response, "after": 3}, desk.socket())
    assert (gap["error"]["code"], gap["error"]["param"]) == ("resume_gap", "after")
    (later,) = desk.say({"type": "x.resume", "response_id": response, "after": 500}, desk.socket())
    assert later["error"]["param"] == "after"
    last = numbers(desk.sent)[-1]
    assert numbers(desk.say({"type": "x.resume", "response_id": response, "after": last - 5})) == [
        last - 4 + i for i in range(5)
    ]
    assert desk.responses.find("local", response).record.bytes <= 2000  # type: ignore[union-attr]
    assert desk.engine(request, Output(request, [desk.end_token], "stop"))[-1]["type"] == "response.completed"


def test_what_is_kept_of_all_is_bounded(folder: Path, tokenizer: TextTokenizer) -> None:
    desk = Desk(make_house(folder, tokenizer, Limits(rings_bytes=20_000)))
    ids = []
    for _ in range(20):
        response, request = begun(desk, texts=["A"])
        desk.engine(request, Output(request, [desk.end_token], "stop"))
        ids.append(response)
    assert desk.responses.kept_bytes <= 20_000
    assert desk.responses.find("local", ids[-1]) is not None and desk.responses.find("local", ids[0]) is None


def test_above_half_of_the_budget_deltas_are_merged_and_numbers_have_no_gaps(desk: Desk) -> None:
    _, request = begun(desk, texts=["A"])
    desk.backlog.bytes = (1 << 19) + 1
    for text in (" croissant", " costs", " three"):
        assert desk.engine(request, Output(request, desk.ids(text))) == []
    desk.backlog.bytes = 0
    (merged,) = desk.sends(desk.session.relieved)
    assert merged["delta"] == " croissant costs three"
    desk.engine(request, Output(request, desk.ids(" euros")))
    assert numbers(desk.sent) == list(range(len(desk.sent))) and said(desk.sent) == "A croissant costs three euros"
    assert desk.closed is None


def test_above_all_of_it_the_socket_closes_and_the_answer_goes_on(desk: Desk) -> None:
    response, request = begun(desk, texts=["A"])
    desk.backlog.bytes = (1 << 20) - 100
    for _ in range(200):
        desk.engine(request, Output(request, desk.ids("A")))
    assert desk.closed is not None and desk.closed.code == 4490
    desk.close()
    desk.backlog.bytes = 0
    desk.engine(request, Output(request, [desk.end_token], "stop"))
    assert desk.abandoned == []
    other = desk.socket()
    rest = desk.say({"type": "x.resume", "response_id": response, "after": numbers(desk.sent)[-1]}, other)
    assert said(rest) == "A" * 200 and rest[-1]["type"] == "response.completed"
