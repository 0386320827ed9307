"""The page of a survey: all plans on the same tokens, in one self-contained HTML file."""

from layerwright.tasks.report import survey_plans
from layerwright.tasks.report.bundle import SurveyBundle, total_of
from layerwright.tasks.report.layers import layer_ticks
from layerwright.tasks.report.lineage import parameters_text, steps, survey_digests
from layerwright.tasks.report.profile_figures import profile_figures
from layerwright.tasks.report.savings import adding_up
from layerwright.tasks.report.survey_charts import budget_panel, plan_dots
from layerwright.tasks.report.survey_predictions import prediction_panel, predictions
from layerwright.tasks.report.template import template


def render_survey(bundle: SurveyBundle) -> str:
    """The whole page. It loads nothing from the network; the same bundle gives the same bytes."""
    plans, metrics = survey_plans.plan_rows(bundle), survey_plans.metric_rows(bundle)
    measured = [m for m in metrics if any(p.value(m.metric) is not None for p in plans)]
    main = survey_plans.headline(metrics, plans)
    shown = [m for m in measured if m.known.part in ("quality", "other")]
    budgets = [budget_panel(plans, metric, bundle.budget) for metric in shown]
    return template("survey.html.j2").render(
        bundle=bundle,
        total_of=total_of,
        parameters=parameters_text(bundle),
        headline=main,
        compared=survey_plans.compared(bundle, plans),
        equal=survey_plans.at_equal_budget(plans, main) if main else [],
        along=survey_plans.along_the_frontier(plans, main, bundle.budget) if main else None,
        plans=plans,
        metrics=metrics,
        dots=[plan_dots(plans, metric) for metric in measured],
        budgets=[panel for panel in budgets if panel],
        predictions=[prediction_panel(prediction) for prediction in predictions(bundle)],
        frontier=[plan for plan in plans if plan.entry.budget is not None],
        looks=list(survey_plans.survey_looks(bundle).values()),
        stability=survey_plans.stability_rows(bundle),
        layers=bundle.model.layers,
        ticks=layer_ticks(bundle.model.layers),
        figures=profile_figures(bundle.profile),
        adding_up=adding_up(bundle.costs) if bundle.costs else "",
        digests=survey_digests(bundle),
        steps=steps(bundle),
    )
