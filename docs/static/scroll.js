// A box that scrolls sideways can be reached by the keyboard.
const reachable = () => document.querySelectorAll('.table, .table-wrapper, .text_html, pre, div.math, .sidebar-scroll, .toc-scroll').forEach(box => {
  if (box.scrollWidth > box.clientWidth || box.scrollHeight > box.clientHeight) box.tabIndex = 0;
});
addEventListener('load', reachable);
addEventListener('resize', reachable);
