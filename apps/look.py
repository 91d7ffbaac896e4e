"""The look of the suite: the paper, the ink and the one accent of a picture book.

Light is warm paper with dark ink; dark is a night sky with moonlight. System fonts only, so that
nothing is loaded from anywhere. Colours are declared here once, for Gradio's own controls
(`THEME`) and, as the same custom properties, for `static/page.css`.
"""

import gradio as gr
from gradio.themes.utils import colors, sizes

from apps.common import STATIC

__all__ = ["CSS", "HEAD", "THEME"]

SERIF = "'Iowan Old Style', Palatino, 'Palatino Linotype', 'URW Palladio L', 'Noto Serif', serif"

PAPER = colors.Color(
    c50="#fdfaf3", c100="#f8f2e6", c200="#efe6d5", c300="#dfd2bb", c400="#b9a98f",
    c500="#8d7f6a", c600="#6b604f", c700="#4b433a", c800="#2d2b33", c900="#211f27",
    c950="#17161d", name="paper",
)  # fmt: skip
BRICK = colors.Color(
    c50="#fcf1ec", c100="#f9e0d6", c200="#f2c1ae", c300="#ea9f85", c400="#de7b5c",
    c500="#c9573a", c600="#b5482d", c700="#943924", c800="#762f20", c900="#5b251a",
    c950="#3a160f", name="brick",
)  # fmt: skip

THEME = gr.themes.Base(
    primary_hue=BRICK,
    secondary_hue=BRICK,
    neutral_hue=PAPER,
    radius_size=sizes.radius_lg,
    spacing_size=sizes.spacing_lg,
    text_size=sizes.text_md,
    font=["system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif"],
    font_mono=["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"],
).set(
    body_background_fill="#fbf6ec",
    body_background_fill_dark="#17161d",
    body_text_color="#33302b",
    body_text_color_dark="#ece5d8",
    body_text_color_subdued="#756a5a",
    body_text_color_subdued_dark="#a79d8f",
    background_fill_primary="#fffdf8",
    background_fill_primary_dark="#211f27",
    background_fill_secondary="#f8f2e6",
    background_fill_secondary_dark="#1c1b22",
    block_background_fill="transparent",
    block_background_fill_dark="transparent",
    block_border_width="0px",
    block_border_width_dark="0px",
    block_shadow="none",
    block_shadow_dark="none",
    block_padding="0px",
    block_label_background_fill="transparent",
    block_label_background_fill_dark="transparent",
    block_title_text_color="#33302b",
    block_title_text_color_dark="#ece5d8",
    block_title_text_weight="600",
    block_info_text_color="#756a5a",
    block_info_text_color_dark="#a79d8f",
    border_color_primary="#e6dbc6",
    border_color_primary_dark="#37343f",
    input_background_fill="#fffdf8",
    input_background_fill_dark="#211f27",
    input_border_color="#dfd2bb",
    input_border_color_dark="#3b3844",
    input_border_color_focus="#c9573a",
    input_border_color_focus_dark="#e8896b",
    input_border_width="1px",
    input_shadow="none",
    input_shadow_focus="0 0 0 3px rgba(201, 87, 58, .16)",
    input_shadow_focus_dark="0 0 0 3px rgba(232, 137, 107, .22)",
    button_primary_background_fill="#b5482d",
    button_primary_background_fill_hover="#9f3d25",
    button_primary_background_fill_dark="#c65a3d",
    button_primary_background_fill_hover_dark="#d56b4d",
    button_primary_text_color="#fffaf3",
    button_primary_text_color_dark="#fffaf3",
    button_secondary_background_fill="#fffdf8",
    button_secondary_background_fill_hover="#f4ebdb",
    button_secondary_background_fill_dark="#26242d",
    button_secondary_background_fill_hover_dark="#312e39",
    button_secondary_border_color="#dfd2bb",
    button_secondary_border_color_dark="#3b3844",
    button_secondary_text_color="#4b433a",
    button_secondary_text_color_dark="#ece5d8",
    button_border_width="1px",
    button_transition="background .15s, border-color .15s, color .15s",
    slider_color="#c9573a",
    slider_color_dark="#e8896b",
    checkbox_background_color_selected="#b5482d",
    checkbox_background_color_selected_dark="#d56b4d",
    checkbox_border_color_selected="#b5482d",
    checkbox_border_color_selected_dark="#d56b4d",
    checkbox_label_background_fill="transparent",
    checkbox_label_background_fill_dark="transparent",
    checkbox_label_background_fill_hover="transparent",
    checkbox_label_background_fill_hover_dark="transparent",
    checkbox_label_background_fill_selected="transparent",
    checkbox_label_background_fill_selected_dark="transparent",
    checkbox_label_border_width="0px",
    checkbox_label_border_width_dark="0px",
    checkbox_label_padding="0px",
    checkbox_label_shadow="none",
)
"""Gradio's theme variables; a name with _dark is the night."""

CSS = f":root {{ --gk-serif: {SERIF}; }}\n" + (STATIC / "page.css").read_text(encoding="utf-8")
HEAD = f"<script>{(STATIC / 'page.js').read_text(encoding='utf-8')}</script>"
