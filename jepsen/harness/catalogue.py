"""Every fault by its name."""

from . import faults, faults_disk, faults_inside

FAULTS = {fault.name: fault
          for fault in (*faults.FAULTS, *faults_disk.FAULTS, *faults_inside.FAULTS)}
