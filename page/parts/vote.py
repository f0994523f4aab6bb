"""The section "Vote": how the branches add up."""

import gradio as gr

from musti_model import Explanation, Prediction

from ..markup import render
from ..names import branch_name
from .part import Section, Values


class Vote(Section):
    """The branches' votes; they come with the answer."""

    name = "vote"
    title = "Vote: how the image branches add up"
    about = (
        "Of the picture and this passage: each branch compares what it sees with the whole passage, and its "
        "vote is a term of the sum that decides."
    )

    def build(self) -> None:
        """Makes its components."""
        self.votes = gr.HTML(elem_id="votes")
        self.shown = [self.votes]

    def draw(self, explanation: Explanation, given: Values) -> Values:
        """They stand there already."""
        return {}

    def blank(self) -> Values:
        """No votes."""
        return {self.votes: ""}


def votes_html(prediction: Prediction, temperature: float) -> str:
    """How the cosines became the logit."""
    rows = [(branch_name(name), cosine, prediction.votes[name]) for name, cosine in prediction.similarities.items()]
    return render(
        "votes.html", rows=rows, constant=prediction.vote_bias, logit=prediction.logit, temperature=temperature
    )
