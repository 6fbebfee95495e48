#!/usr/bin/python3
"""The same in Python, with the installed package: pay.py COORDINATOR AMOUNT. The account behind the
ready-made participant is enough for it. Exits 0 when it is committed."""
import sys

import troth
import troth.sql

with troth.Client([sys.argv[1]]).transaction() as tx:
    troth.sql.run(tx, "east", "withdraw", 1, int(sys.argv[2]))
print("committed", tx.id)
