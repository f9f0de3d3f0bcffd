"""Who asks what, when: the workload, the schedule and the processes that carry it out."""
