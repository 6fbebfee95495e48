#!/usr/bin/python3
"""The Python participant's link to a coordinator, which is played. Quick."""

import unittest
import unittest.mock

import harness  # noqa: F401  pylint: disable=unused-import

from troth.participant.fence import EpochFence
from troth.participant.link import CoordinatorLink, SelfDescription
from troth.participant.values import DatabaseIdentity, DatabaseState, LogPoint, SeenCoordinator
from troth.security import Security, SecurityOptions
from troth.wire.coordinator.ttypes import Enrolled
from troth.wire.values.constants import PROTOCOL_VERSION
from troth.wire.values.ttypes import Sender


class Notes:
    """A database of which only the notes count."""

    def __init__(self):
        self.notes = {}

    def look(self):
        return DatabaseState(DatabaseIdentity("7", 5), LogPoint(1, 1), "h:1")

    def load_seen(self):
        return list(self.notes.values())

    def store_seen(self, seen):
        self.notes[seen.coordinator] = seen


class Link(unittest.TestCase):
    """No enrolment ends what was seen of a coordinator before that coordinator was told: laws L7c,
    L7d. Who answers is played: `said` is what it was told, without what it overlooks."""

    def setUp(self):
        self.db = Notes()
        self.fence = EpochFence(self.db)
        self.said = []
        self.line = unittest.mock.Mock(reported=False)
        self.line.client.enroll = lambda enrolment: self.answer(enrolment.seen)
        self.line.client.inquire = lambda participant, inquiries, seen: self.hear("report", seen)
        self.link = CoordinatorLink("h:1", SelfDescription("east", "i1", "h"), self.db, self.fence,
                                    lambda: None, Security(SecurityOptions()))

    def hear(self, call, seen):
        own = seen is not None and seen.coordinator == self.sender.coordinator
        self.said.append((call, seen.epoch, seen.position) if own else (call,))
        return []

    def answer(self, seen):
        self.hear("enrol", seen)
        return Enrolled(PROTOCOL_VERSION, self.sender, b"s")

    def enrol(self, name, epoch):
        self.said.clear()
        self.sender = Sender(name, epoch, 100 + epoch, 1)
        self.link._enrol(self.line)

    def noted(self, **rows):
        self.db.notes = {name: SeenCoordinator(name, epoch, 100 + epoch, position)
                         for name, (epoch, position) in rows.items()}
        self.fence.load()

    def test_what_was_seen_is_brought_although_the_name_was_not_known(self):
        self.noted(c=(3, 100), d=(5, 7))
        self.enrol("c", 4)
        self.assertEqual(self.said, [("report", 3, 100), ("report",), ("enrol",),
                                     ("enrol", 3, 100)])
        self.assertEqual((self.db.notes["c"].epoch, self.db.notes["d"].epoch), (4, 5))

    def test_what_was_seen_is_brought_when_another_answers_at_the_address(self):
        self.noted(c=(3, 100), d=(5, 7))
        self.enrol("d", 5)
        self.fence.check(SeenCoordinator("c", 4, 104, 1))  # it calls, too
        self.line.reported = False
        self.enrol("c", 4)
        self.assertEqual(self.said, [("report", 3, 100), ("enrol",), ("enrol", 3, 100)])
        self.assertEqual((self.link.coordinator, self.db.notes["c"].epoch), ("c", 4))

    def test_what_was_seen_is_brought_by_who_asks_before_it_enrols(self):
        self.noted(c=(3, 100), d=(5, 7))
        self.sender = Sender("c", 4, 104, 1)
        with unittest.mock.patch("troth.participant.link._Line", return_value=self.line):
            self.assertEqual(self.link.inquire([]), [])
            self.assertEqual(self.said, [("report", 3, 100), ("report",), ("report",)])
            self.link.inquire([])  # once for a connection
        self.assertEqual(self.said[3:], [("report",)])

    def test_the_one_coordinator_ever_met_is_told_at_once(self):
        self.noted(c=(3, 100))
        self.enrol("c", 4)
        self.assertEqual((self.said, self.db.notes["c"].epoch), ([("enrol", 3, 100)], 4))

    def test_what_was_seen_of_another_is_no_report(self):
        self.noted(d=(9, 100))
        self.enrol("c", 4)
        self.assertEqual(self.said, [("enrol",)])


if __name__ == "__main__":
    unittest.main()
