"""The pretraining objectives: GMML, SiT and MC-SSL0.0, and the plain autoencoder as their control.

::

    objective = MCSSL("vit_micro_patch8_64", classes=1024)
    loss, parts = objective([images], keys=gmml_aug.keys(seed, epoch, index))  # corrupts, predicts, compares
    loss.backward()
    optimiser.step()  # of the parameters that take a gradient
    objective.after_step(progress)  # the teacher and the centres follow; objective.discard() instead if the step is skipped
    objective.exported().save_pretrained(folder)
"""

from gmml_models.objectives.gmml import GMML, Autoencode
from gmml_models.objectives.mc_ssl import MCSSL
from gmml_models.objectives.objective import Objective, Reconstruction
from gmml_models.objectives.sit import ContrastiveHead, SiT

__all__ = ["GMML", "MCSSL", "Autoencode", "ContrastiveHead", "Objective", "Reconstruction", "SiT"]
