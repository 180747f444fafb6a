"""What a migration takes: texts, tokens, cost, time, disk, memory, each with how it is known."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeGuard, get_args

from samespace.errors import InvalidInput, excerpt
from samespace.forecast import SlotForecast
from samespace.ingest.arguments import check_count

Basis = Literal["counted", "sampled", "estimated", "configured", "formula", "unknown"]
"""How a figure is known, from the surest to none at all."""
BASES: Final[tuple[Basis, ...]] = get_args(Basis)
BYTES_PER_TOKEN: Final = 3
"""Low for English (4 to 5), about right for Chinese and Japanese: rather too many tokens than too few."""
_SPECIAL_TOKENS: Final = 2
_NORMAL_95: Final = 1.96
NOT_KNOWN: Final = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One figure. ``value`` is None where nobody knows; ``low`` and ``high`` bound it, where they are known.

    ``source`` says where it comes from, in words.
    """

    value: float | None
    basis: Basis
    source: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What is needed: ``seconds`` with the index's build, ``disk_bytes`` and ``memory_bytes`` with it too.

    ``cost`` is in the currency of the price that was given.
    """

    texts: Figure
    tokens: Figure
    cost: Figure
    seconds: Figure
    disk_bytes: Figure
    memory_bytes: Figure


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The tokens of texts that were drawn at random, without replacement.

    ``counter`` says in words how they were counted, ``is_counted`` whether by more than their bytes.
    """

    tokens: Sequence[int] = ()
    counter: str = ""
    is_counted: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """What embedding costs and how fast it may go, of the account; None is not known.

    ``share`` (above 0, at most 1) is the part of the two limits that the migration may use beside live
    queries. ``price`` is for a million tokens.
    """

    price: float | None = None
    tokens_per_minute: int | None = None
    requests_per_minute: int | None = None
    texts_per_request: int = 512
    share: float = 0.5

    def __post_init__(self) -> None:
        if self.price is not None and not (_is_number(self.price) and 0 <= self.price < math.inf):
            raise InvalidInput(
                f"price (--price) is {excerpt(self.price)}; pass what a million tokens cost, like 0.05"
            )
        for name in ("tokens_per_minute", "requests_per_minute"):
            if getattr(self, name) is not None:
                check_count(getattr(self, name), what=_option(name))
        check_count(self.texts_per_request, what=_option("texts_per_request"))
        if not _is_number(self.share) or not 0 < self.share <= 1:
            raise InvalidInput(
                f"share (--share) is {excerpt(self.share)}; pass a part above 0 and at most 1, like 0.5"
            )


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return _is_number(value) and math.isfinite(value)


def _option(name: str) -> str:
    return f"{name} (--{name.replace('_', '-')})"


def tokens_by_size(texts: Iterable[str]) -> list[int]:
    """Tokens of each text by its bytes, for a backend that counts none."""
    return [len(text.encode()) // BYTES_PER_TOKEN + _SPECIAL_TOKENS for text in texts]


def estimate(
    *, texts: int, sample: Sample, rates: Rates, forecast: SlotForecast | None, calls: bool
) -> Estimate:
    """What ``texts`` rows take to fill.

    ``sample`` is drawn from their texts; ``calls`` says whether they are embedded, else they are derived
    without a model.
    """
    told = Figure(value=texts, basis="counted", source="rows to fill, counted in the store")
    tokens = _tokens(texts, sample) if calls else _none("nothing is embedded")
    return Estimate(
        texts=told,
        tokens=tokens,
        cost=_cost(tokens, rates),
        seconds=_seconds(texts, tokens, rates, forecast, calls=calls),
        disk_bytes=_bytes(texts, forecast, "disk_per_row"),
        memory_bytes=_bytes(texts, forecast, "memory_per_row"),
    )


def _none(source: str) -> Figure:
    return Figure(value=0, basis="counted", source=source)


def _unknown(source: str, low: float | None = None) -> Figure:
    return Figure(value=None, basis="unknown", source=source, low=low)


def _tokens(texts: int, sample: Sample) -> Figure:
    """The mean of a sample times the number of texts, with its 95 % interval.

    By normal theory with the correction for a finite population (W. G. Cochran, *Sampling Techniques*,
    3rd edition, 1977, sections 2.6 to 2.8). Of a sample that is everything it is the sum.
    """
    counts, drawn = sample.tokens, len(sample.tokens)
    if not texts:
        return _none("there is nothing to fill")
    if not drawn:
        return _unknown("no row has a vector of the source, so no text was sampled")
    if drawn >= texts:
        total = round(sum(counts) * texts / drawn)
        basis: Basis = "counted" if sample.is_counted else "estimated"
        return Figure(value=total, basis=basis, source=f"all {drawn:,} texts, {sample.counter}")
    mean = sum(counts) / drawn
    basis = "sampled" if sample.is_counted else "estimated"
    source = f"a random sample of {drawn:,} texts, {sample.counter}"
    if drawn == 1:
        return Figure(value=round(mean * texts), basis=basis, source=source)
    variance = sum((count - mean) ** 2 for count in counts) / (drawn - 1)
    half = _NORMAL_95 * texts * math.sqrt(variance / drawn * (texts - drawn) / texts)
    low = max(float(sum(counts)), mean * texts - half)
    return Figure(
        value=round(mean * texts),
        basis=basis,
        source=source,
        low=round(low),
        high=round(mean * texts + half),
    )


def _cost(tokens: Figure, rates: Rates) -> Figure:
    if tokens.value == 0:
        return _none("nothing is embedded")
    if rates.price is None:
        return _unknown("pass price (--price), what a million tokens cost")
    if tokens.value is None:
        return _unknown(tokens.source)
    source = f"{rates.price:g} for a million tokens, of {tokens.source}"
    return _scaled(tokens, rates.price / 1e6, basis=tokens.basis, source=source, digits=4)


def _scaled(figure: Figure, by: float, *, basis: Basis, source: str, digits: int) -> Figure:
    value, low, high = (
        None if number is None else round(number * by, digits)
        for number in (figure.value, figure.low, figure.high)
    )
    return Figure(value=value, basis=basis, source=source, low=low, high=high)


def _seconds(
    texts: int, tokens: Figure, rates: Rates, forecast: SlotForecast | None, *, calls: bool
) -> Figure:
    """Embedding and writing go on beside one another, so the slower counts; the index comes after."""
    if not texts:
        return _none("there is nothing to fill")
    if forecast is None:
        return _unknown("this store does not say how fast rows are filled")
    writing = texts / forecast.fills_per_second
    building = texts / forecast.builds_per_second if forecast.builds_per_second else 0.0
    written = f"{forecast.fills_per_second:,.0f} rows a second are written ({forecast.rate_from})"
    if forecast.builds_per_second:
        written += f" and {forecast.builds_per_second:,.0f} indexed after that"
    if not calls:
        return Figure(value=round(writing + building, 1), basis="formula", source=written)
    embedding = _embedding(texts, tokens, rates)
    if embedding is None:
        asked = "pass tokens_per_minute (--tokens-per-minute) and requests_per_minute; "
        return _unknown(asked + written, low=round(writing + building, 1))
    slowest = "embedding" if embedding >= writing else "writing"
    source = f"{slowest} is what takes the time: {_paced(rates)}; {written}"
    value = round(max(embedding, writing) + building, 1)
    return Figure(value=value, basis="configured", source=source)


def _embedding(texts: int, tokens: Figure, rates: Rates) -> float | None:
    """Seconds of embedding alone, as far as the account's limits are known."""
    if rates.tokens_per_minute is None and rates.requests_per_minute is None:
        return None
    minutes = 0.0
    if rates.tokens_per_minute is not None:
        if tokens.value is None:
            return None
        minutes = tokens.value / rates.tokens_per_minute
    if rates.requests_per_minute is not None:
        requests = math.ceil(texts / rates.texts_per_request)
        minutes = max(minutes, requests / rates.requests_per_minute)
    return 60 * minutes / rates.share


def _paced(rates: Rates) -> str:
    parts = [
        f"{count:,} {what} a minute"
        for count, what in (
            (rates.tokens_per_minute, "tokens"),
            (rates.requests_per_minute, f"requests of {rates.texts_per_request:,} texts"),
        )
        if count is not None
    ]
    return f"a share of {rates.share:g} of {' and '.join(parts)}"


def _bytes(texts: int, forecast: SlotForecast | None, name: str) -> Figure:
    if forecast is None:
        return _unknown("this store does not say how large a slot is")
    each: int = getattr(forecast, name)
    source = f"{each:,} bytes a row: {forecast.sizes_from}"
    return Figure(value=texts * each, basis="formula", source=source)


# Several collections


def total(estimates: Sequence[Estimate]) -> Estimate:
    """What all of them take one after the other; in memory is one index at a time."""
    if len(estimates) == 1:
        return estimates[0]
    names = ("texts", "tokens", "cost", "seconds", "disk_bytes")
    sums = {name: _sum([getattr(each, name) for each in estimates]) for name in names}
    memory = [each.memory_bytes for each in estimates]
    return Estimate(**sums, memory_bytes=_largest(memory))


def _sum(figures: Sequence[Figure]) -> Figure:
    """The sum; intervals of independent samples add as the squares of their halves do."""
    basis = max((figure.basis for figure in figures), key=BASES.index)
    source = "; ".join(dict.fromkeys(figure.source for figure in figures))
    if any(figure.value is None for figure in figures):
        low = sum(figure.value or figure.low or 0 for figure in figures)
        return Figure(value=None, basis=basis, source=source, low=low)
    value = sum(figure.value or 0 for figure in figures)
    below, above = (
        math.hypot(*(_distance(figure, side) for figure in figures)) for side in ("low", "high")
    )
    return Figure(
        value=round(value, 4),
        basis=basis,
        source=source,
        low=round(value - below, 4) if below else None,
        high=round(value + above, 4) if above else None,
    )


def _distance(figure: Figure, side: str) -> float:
    bound: float | None = getattr(figure, side)
    return 0.0 if bound is None or figure.value is None else abs(bound - figure.value)


def _largest(figures: Sequence[Figure]) -> Figure:
    unknown = [figure for figure in figures if figure.value is None]
    return unknown[0] if unknown else max(figures, key=lambda figure: figure.value or 0)


# For people


def shown_number(figure: Figure, unit: str = "") -> str:
    """A number with its bounds."""
    return _shown(figure, lambda number: f"{number:,.10g}{unit}")


def shown_cost(figure: Figure) -> str:
    """A cost, whatever its currency."""
    return _shown(figure, lambda number: f"{number:,.2f}" if number >= 1 else f"{number:.4f}")


def shown_bytes(figure: Figure) -> str:
    """Bytes with their unit."""
    return _shown(figure, shown_size)


def shown_seconds(figure: Figure) -> str:
    """Seconds, minutes or hours."""
    return _shown(figure, _lasting)


def _shown(figure: Figure, write: Any) -> str:
    if figure.value is None:
        return NOT_KNOWN if figure.low is None else f"{NOT_KNOWN}, at least {write(figure.low)}"
    if figure.low is None or figure.high is None:
        return str(write(figure.value))
    return f"{write(figure.value)} ({write(figure.low)} to {write(figure.high)})"


def shown_size(number: float) -> str:
    """Bytes in the largest unit that leaves a number above 1."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}" if unit != "bytes" else f"{number:.0f} {unit}"
        number /= 1000
    return f"{number:.3g} TB"


def _lasting(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def to_dict(value: Estimate) -> dict[str, Any]:
    """JSON-ready."""
    return {
        name: {part: getattr(getattr(value, name), part) for part in Figure.__dataclass_fields__}
        for name in Estimate.__dataclass_fields__
    }


def is_figure(values: object) -> bool:
    """Whether these are the parts of a :class:`Figure` as :func:`to_dict` writes them."""
    if not isinstance(values, Mapping) or values.keys() != Figure.__dataclass_fields__.keys():
        return False
    numbers = (values["value"], values["low"], values["high"])
    has_numbers = all(number is None or _is_finite(number) for number in numbers)
    return has_numbers and values["basis"] in BASES and isinstance(values["source"], str)
