"""Model cards: what the model hub reads of them, and what a person reads."""

from huggingface_hub import ModelCard

from alam_core.cards import model_card


def test_a_card_has_metadata_for_the_hub_and_text_for_a_person():
    text = model_card(
        "Policy of the Piper",
        "Trained for 20 steps.\n\n| a | b |\n|---|---|\n| 1 | 2 |",
        tags=["robotics", "alam"],
        dataset="piper_place",
        metrics={"success": 0.75, "action_mae": 0.01},
    )
    card = ModelCard(text)
    assert card.data.license == "apache-2.0"
    assert card.data.library_name == "alam"
    assert card.data.tags == ["robotics", "alam"]
    assert card.data.datasets == ["piper_place"]
    measured = {entry.metric_type: entry.metric_value for entry in card.data.eval_results}
    assert measured == {"success": 0.75, "action_mae": 0.01}
    assert card.text.strip().startswith("# Policy of the Piper\n\nTrained for 20 steps.")
    assert card.text.endswith("| 1 | 2 |\n")


def test_a_card_needs_neither_data_set_nor_metrics():
    card = ModelCard(model_card("A model", "Text.", tags=["alam"], dataset=None, metrics={}))
    assert card.data.datasets is None
    assert card.data.eval_results is None
    assert card.text == "\n# A model\n\nText.\n"
