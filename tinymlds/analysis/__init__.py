"""What do the weights reveal? Experiments on datasets: `tinymlds analyze`, extra `[analysis]` (scikit-learn).

experiments   `analyze`, which answers a question
questions     what can be asked, and the cases of each, checked before anything is fitted
ladder        the rungs (model / features / form), and how they are climbed with several seeds
points        networks as labelled points; equalised numbers of epochs
splits        which networks are for training, validation and test
features      raw weights, statistics of layers, answers; weights transformed, canonical, initial
models        the models of scikit-learn, chosen on the validation networks
graph         a network that respects the symmetries (PyTorch, extra `[torch]`)
statistics    scores and their intervals
results       what comes out, and its JSON
writing       where that goes, and the rows of an analysis that is under way
reading       that JSON, read from a file that may come from a stranger
"""
