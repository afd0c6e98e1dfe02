"""Several trainings as one experiment.

``running`` runs jobs side by side and knows what still counts; ``plans`` carries out plans of experiments; ``results``
has their schema, tables and pictures; ``quickstart`` is the main job in miniature.
"""
