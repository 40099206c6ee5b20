// Before the first paint, so that a dark page does not flash white. A person's choice, so it is not in the URL.
(() => {
  let choice = null;
  try {
    choice = localStorage.getItem("dlx-theme");
  } catch {
    // Storage may be blocked: then the system decides.
  }
  if (choice === "light" || choice === "dark") document.documentElement.dataset.theme = choice;
})();
