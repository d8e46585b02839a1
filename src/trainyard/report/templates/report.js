"use strict";
// A number of the confusion matrix opens its examples; arrow keys go from number to number; paper shows what is folded.
{
  const dialog = document.querySelector("dialog");
  const [close, place] = dialog.children;

  for (const link of document.querySelectorAll("a[href^='#cell-']")) {
    link.addEventListener("click", (event) => {
      event.preventDefault();
      const examples = document.querySelector(link.hash).cloneNode(true);
      examples.removeAttribute("id");
      place.replaceChildren(examples);
      dialog.showModal();
      dialog.scrollTop = 0;
    });
  }
  close.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  const matrix = document.querySelector(".matrix");
  const links = matrix ? [...matrix.querySelectorAll("a")] : [];
  const steps = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
  // One stop of the tab key for all of them: a hundred classes have thousands.
  links.forEach((link, i) => (link.tabIndex = i === 0 ? 0 : -1));

  function next(cell, [down, right]) {
    let row = cell.parentElement.rowIndex, column = cell.cellIndex;
    for (;;) {
      row += down;
      column += right;
      const found = matrix.rows[row]?.cells[column];
      if (!found) return null;
      const link = found.querySelector("a");
      if (link) return link;
    }
  }

  function leaveOthers(link) {
    for (const other of links) other.tabIndex = other === link ? 0 : -1;
  }

  matrix?.addEventListener("focusin", (event) => event.target.matches("a") && leaveOthers(event.target));
  matrix?.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (!step || !event.target.matches("a")) return;
    event.preventDefault();
    next(event.target.closest("td"), step)?.focus();
  });

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
}
