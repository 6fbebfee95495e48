"""What a checker found, and how it is told: to people, as JSON, as a last line.

Knows no workload.  An anomaly is a name with findings; whether it makes the
history invalid is the checker's word (`forbidden`), since some models allow what
others rule out.
"""

import json


class Report:
    """Findings by anomaly, in the order in which they were made."""

    def __init__(self, workload, model=None):
        self.workload = workload
        self.model = model
        self.findings = {}   # Anomaly -> list of dicts, each with a "text".
        self.counts = {}     # Anomaly -> how often, where not all are listed.
        self.allowed = set() # Anomalies that the model permits.
        self.figures = {}    # What was looked at: counts and seconds.
        self.ruled_out = []  # The weakest models that the history breaks.

    def add(self, anomaly, text, **data):
        """One finding: a sentence or several, and the data behind it."""
        self.findings.setdefault(anomaly, []).append({'text': text, **data})

    def allow(self, *anomalies):
        """These are told, but do not make the history invalid."""
        self.allowed.update(anomalies)

    def anomalies(self):
        return sorted(self.findings)

    def forbidden(self):
        return [a for a in self.anomalies() if a not in self.allowed]

    @property
    def valid(self):
        return not self.forbidden()

    def closing_line(self):
        names = ','.join(self.anomalies()) or 'none'
        return f'check: valid={"true" if self.valid else "false"} anomalies={names}'

    def text(self, limit=3):
        """For people: up to `limit` findings of each anomaly."""
        lines = []
        for anomaly in self.anomalies():
            found = self.findings[anomaly]
            times = self.counts.get(anomaly, len(found))
            note = f', allowed by {self.model}' if anomaly in self.allowed else ''
            lines.append(f'{anomaly} ({times}{note})')
            for finding in found[:limit]:
                lines.extend('  ' + line for line in finding['text'].split('\n'))
            if times > min(limit, len(found)):
                lines.append(f'  ... and {times - min(limit, len(found))} more')
            lines.append('')
        if self.ruled_out:
            lines.append('Ruled out: ' + ', '.join(self.ruled_out)
                         + ', and every stronger model.')
        figures = ', '.join(f'{key} {value}' for key, value in self.figures.items())
        lines.append(f'Looked at: {figures}.')
        return '\n'.join(lines)

    def data(self):
        return {'valid': self.valid, 'workload': self.workload, 'model': self.model,
                'anomalies': self.anomalies(), 'allowed': sorted(
                    set(self.anomalies()) & self.allowed),
                'not': self.ruled_out, 'figures': self.figures,
                'counts': {a: self.counts.get(a, len(f))
                           for a, f in self.findings.items()},
                'findings': self.findings}

    def write_json(self, path):
        with open(path, 'w', encoding='utf-8') as file:
            json.dump(self.data(), file, indent=1, default=str)
            file.write('\n')
