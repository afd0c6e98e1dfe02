from pcdet.ops.scatter.groups import RowGroups, group_rows
from pcdet.ops.scatter.scatter import expand_groups, scatter_max, scatter_mean, scatter_sum

__all__ = ["RowGroups", "expand_groups", "group_rows", "scatter_max", "scatter_mean", "scatter_sum"]
