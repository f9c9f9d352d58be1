// Sets the chosen colours before the first paint; without a choice the system's preference holds.
"use strict";

(() => {
  const NAME = "sharedllm-theme";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");

  const read = () => {
    try {
      return localStorage.getItem(NAME);
    } catch {
      return null; // storage may be forbidden; the system's preference holds
    }
  };

  const chosen = read();
  if (chosen === "dark" || chosen === "light") root.dataset.theme = chosen;
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : system.matches);

  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    const show = () => button.setAttribute("aria-pressed", String(isDark()));
    button.addEventListener("click", () => {
      root.dataset.theme = isDark() ? "light" : "dark";
      try {
        localStorage.setItem(NAME, root.dataset.theme);
      } catch {
        // the choice then lasts as long as the page
      }
      show();
    });
    system.addEventListener("change", show);
    show();
  });
})();
