"""The participant's side. What a service needs is in `troth` itself; see engine.py."""
