"""Which proposals a second stage learns from, and what each of them should predict."""

from pcdet.models.roi_heads.target_assigner.proposal_target_layer import ProposalTargetLayer

__all__ = ["ProposalTargetLayer"]
