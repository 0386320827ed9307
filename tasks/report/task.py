"""The `report` steps: write the page of a convert run, of a survey, of a requalification."""

from layerwright.tasks.contracts.run import Page
from layerwright.tasks.orchestration.node import Node
from layerwright.tasks.steps import Step

STEP = Step("report", after="register", placed=False, listed=False)
write_report = Node[Page](STEP, "layerwright.tasks.report.step.write_report", cached=False)
write_survey = Node[Page](STEP, "layerwright.tasks.report.step.write_survey", cached=False)
write_requalification = Node[Page](
    STEP, "layerwright.tasks.report.step.write_requalification", cached=False
)
