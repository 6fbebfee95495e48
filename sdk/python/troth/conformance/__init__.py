"""Conformance: plays the coordinator, and the application, towards any participant, and says which
rules of the contract it keeps. The program is cli/troth-conformance."""
