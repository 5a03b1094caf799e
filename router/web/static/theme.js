// Not a module: it runs before anything is drawn, so that no page flashes in the other colours.
const prefersDark = matchMedia("(prefers-color-scheme: dark)");

function paint() {
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? (prefersDark.matches ? "dark" : "light");
}

paint();
prefersDark.addEventListener("change", paint);
addEventListener("storage", paint); // another tab has changed it
addEventListener("theme", paint);
