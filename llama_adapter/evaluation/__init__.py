"""Scores of answers on the benchmarks of this field; `evaluate TASK` on the command line.

Each task turns a data set into questions, reads answers and scores them; a metric is a file of its own. What
answers is a file or a predictor (`predictor.py`); only where a model is run is torch loaded.
"""
