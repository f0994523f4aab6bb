"""The page's own theme: paper and ink, verdigris for what can be pressed. Orange and purple are left to the explanations."""

import gradio as gr

VERDIGRIS = gr.themes.Color(
    name="verdigris", c50="#eef6f4", c100="#d5eae6", c200="#aed6cf", c300="#7fbdb4", c400="#4f9d94", c500="#2f7f78", c600="#1f6660", c700="#19534e",
    c800="#164340", c900="#123735", c950="#0a2120",
)  # fmt: skip
PAPER = gr.themes.Color(
    name="paper", c50="#fbf9f5", c100="#f3efe7", c200="#e5dfd3", c300="#cfc7b8", c400="#8f8778", c500="#6b6458", c600="#565045", c700="#403c34",
    c800="#2b2823", c900="#1d1b18", c950="#131210",
)  # fmt: skip


def theme() -> gr.themes.Base:
    """Text on its ground has a contrast of at least 4.5 (WCAG 2.2, 1.4.3), in the light and in the dark."""
    base = gr.themes.Base(
        primary_hue=VERDIGRIS, secondary_hue=VERDIGRIS, neutral_hue=PAPER, radius_size="sm", font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    )  # fmt: skip
    return base.set(
        body_background_fill="*neutral_50", body_background_fill_dark="*neutral_950",
        body_text_color="*neutral_900", body_text_color_dark="*neutral_100",
        body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_300",
        background_fill_primary="white", background_fill_primary_dark="*neutral_900",
        background_fill_secondary="*neutral_100", background_fill_secondary_dark="*neutral_800",
        border_color_primary="*neutral_300", border_color_primary_dark="*neutral_700",
        block_background_fill="white", block_background_fill_dark="*neutral_900",
        block_label_text_color="*neutral_600", block_label_text_color_dark="*neutral_200",
        block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_100",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_300",
        input_placeholder_color="*neutral_500", input_placeholder_color_dark="*neutral_300",
        color_accent="*primary_600",
        link_text_color="*primary_700", link_text_color_dark="*primary_300",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600", button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white", button_primary_text_color_dark="white",
        button_secondary_background_fill="*neutral_100", button_secondary_background_fill_hover="*neutral_200",
        button_secondary_background_fill_dark="*neutral_700", button_secondary_background_fill_hover_dark="*neutral_600",
        button_secondary_text_color="*neutral_900", button_secondary_text_color_dark="*neutral_50",
        slider_color="*primary_600", slider_color_dark="*primary_400",
        checkbox_background_color_selected="*primary_600", checkbox_background_color_selected_dark="*primary_500",
        checkbox_border_color="*neutral_400", checkbox_border_color_dark="*neutral_300",
    )  # fmt: skip
