"""Scores of answers on the benchmarks of this field; `evaluate TASK` on the command line.

Each task turns a data set into questions, reads answers and scores them; a metric is a file of its own.
Running a model is not part of it: a task's questions go to whatever answers them. Nothing here loads torch.
"""
