"""``steady``: one rate for a given time."""

from loadtests.admin import service_facts
from loadtests.laws import generation_never_goes_back, no_failed_request
from loadtests.open_loop import run_open_loop
from loadtests.options import LoadOptions
from loadtests.phases import Window, summarize
from loadtests.progress import say
from loadtests.result import Result


async def run(options: LoadOptions, *, seconds: float, warm_up_s: float = 2.0) -> Result:
    """Send at one rate for ``seconds`` after a warm-up that is judged but not timed."""
    facts = {**options.facts(), **await service_facts(options.target)}
    rate, rate_facts = await options.chosen_rate()
    say(f"sending {rate:.1f} requests/s for {warm_up_s + seconds:g} s ...")
    async with options.pool() as pool:
        start_s = pool.clock.now()
        replies = await run_open_loop(pool, options.bodies, options.load(rate, warm_up_s + seconds))
    timed = Window(start_s=start_s + warm_up_s, end_s=start_s + warm_up_s + seconds)
    phase = summarize(
        "steady",
        (reply for reply in replies if reply.intended_s >= timed.start_s),
        seconds=seconds,
        offered_rate=rate,
    )
    return Result(
        scenario="steady",
        facts={**facts, **rate_facts},
        phases=(phase,),
        laws=(no_failed_request(replies), generation_never_goes_back(replies)),
        replies={"requests": replies},
    )
