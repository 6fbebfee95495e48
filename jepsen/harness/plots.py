"""Pictures of a run: operations a second, and how long they took, with the faults shaded."""

import matplotlib

matplotlib.use('Agg')
from matplotlib import pyplot  # pylint: disable=wrong-import-position

_SECOND = 1e9
_COLOURS = {'ok': '#2a7', 'fail': '#e90', 'info': '#c33'}
_SHADES = ('#4477aa', '#ee6677', '#228833', '#ccbb44', '#66ccee', '#aa3377', '#bbbbbb')


def _shade(axes, injections):
    names = sorted({i.fault.name for i in injections})
    for injection in injections:
        colour = _SHADES[names.index(injection.fault.name) % len(_SHADES)]
        begin = injection.begin / _SECOND
        end = (injection.end or injection.begin) / _SECOND
        axes.axvspan(begin, max(end, begin + 0.1), color=colour, alpha=0.18, lw=0)
    handles = [pyplot.Rectangle((0, 0), 1, 1, color=_SHADES[i % len(_SHADES)], alpha=0.3)
               for i in range(len(names))]
    return handles, names


def _finish(figure, axes, injections, path, seconds):
    handles, names = _shade(axes, injections)
    old_handles, old_names = axes.get_legend_handles_labels()
    axes.legend(old_handles + handles, old_names + names, loc='upper right', fontsize=7, ncol=2)
    axes.set_xlim(0, seconds)
    axes.set_xlabel('seconds')
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def draw(directory, samples, injections):
    """Writes rate.png and latency-raw.png; `samples` are (asked, answered, type, workload)."""
    if not samples:
        return
    seconds = max(s[1] for s in samples) / _SECOND
    figure, axes = pyplot.subplots(figsize=(11, 4))
    for type_, colour in _COLOURS.items():
        counts = [0] * (int(seconds) + 1)
        for _, answered, kind, _ in samples:
            if kind == type_:
                counts[int(answered / _SECOND)] += 1
        axes.plot(range(len(counts)), counts, color=colour, label=type_, lw=1.2)
    axes.set_ylabel('operations a second')
    _finish(figure, axes, injections, directory / 'rate.png', seconds)

    figure, axes = pyplot.subplots(figsize=(11, 4))
    for type_, colour in _COLOURS.items():
        mine = [s for s in samples if s[2] == type_]
        axes.plot([s[0] / _SECOND for s in mine], [(s[1] - s[0]) / 1e6 for s in mine], '.',
                  color=colour, label=type_, ms=2, alpha=0.6)
    axes.set_yscale('log')
    axes.set_ylabel('milliseconds')
    _finish(figure, axes, injections, directory / 'latency-raw.png', seconds)
