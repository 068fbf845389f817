// Before anything is drawn, so that no page flashes in the other theme.
(() => {
  let theme;
  try {
    theme = localStorage.getItem("sdp.theme");
  } catch {
    // Storage may be switched off.
  }
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
})();
