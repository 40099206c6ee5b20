// Plotly, loaded when the first chart is needed, and how our charts look.

import { token } from "./colors.js";

const coarse = matchMedia("(pointer: coarse)");
let loading = null;

export function plotly() {
  loading ??= new Promise((resolve, reject) => {
    const script = document.createElement("script");
    script.src = "/static/plotly.min.js";
    script.onload = () => resolve(window.Plotly);
    script.onerror = () => {
      loading = null;
      reject(new Error("Charts could not be loaded (/static/plotly.min.js)"));
    };
    document.head.append(script);
  });
  return loading;
}

export const CONFIG = {
  displaylogo: false,
  responsive: true,
  showTips: false,
  plotlyServerURL: "",
  modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  displayModeBar: coarse.matches ? false : "hover",
};

export function axis(title, options = {}) {
  return {
    title: title ? { text: title, standoff: 8, font: { size: 11, color: token("--muted") } } : undefined,
    gridcolor: token("--line"),
    zeroline: false,
    linecolor: token("--line"),
    tickfont: { size: 11, color: token("--muted") },
    automargin: true,
    nticks: 6,
    exponentformat: "power",
    ...options,
  };
}

export function layout(options = {}) {
  return {
    autosize: true,
    margin: { l: 8, r: 12, t: 8, b: 8 },
    showlegend: false,
    hovermode: "closest",
    dragmode: coarse.matches ? false : "zoom", // a finger scrolls the page
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 12, color: token("--text") },
    hoverlabel: {
      bgcolor: token("--raised"),
      bordercolor: token("--line-strong"),
      font: { size: 12, color: token("--text") },
      namelength: 40,
    },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: token("--muted"), activecolor: token("--accent") },
    ...options,
  };
}

// Plotly reads a few tags (<b>, <br>, <a href>) in its labels: data must not.
export const plain = (value) => String(value).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

export function fade(color, alpha) {
  const value = Number.parseInt(color.slice(1), 16);
  return `rgba(${value >> 16},${(value >> 8) & 255},${value & 255},${alpha})`;
}
