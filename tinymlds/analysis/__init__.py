"""Experiments on what weights reveal: `tinymlds analyze`, extra `[analysis]` (scikit-learn).

experiments   `analyze`, which runs an experiment
questions     the questions and the cases of each, checked before anything is fitted
ladder        the rungs (model / features / form), fitted and tested with several seeds
points        networks as labelled points; equalised numbers of epochs
splits        the division of networks into training, validation and test
features      raw weights, statistics of layers, answers; weights transformed, canonical, initial
models        the models of scikit-learn, chosen on the validation networks
graph         a network that respects the symmetries (PyTorch, extra `[torch]`)
statistics    scores and their intervals
results       the results and their JSON
writing       the files of the results and of the rows of an unfinished analysis
reading       reading that JSON from untrusted files
"""
