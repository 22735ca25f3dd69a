// The study's page: thumbnails change their layer, sections follow the slider, parts refresh.
'use strict';

const section = (image, number, layer, pixels) =>
  '/page/section?' + new URLSearchParams({ image, section: number, layer, pixels });

function switchLayers(bar) {
  const pictures = [...document.querySelectorAll('img[data-layers]')];
  const offered = new Set(pictures.flatMap(p => p.dataset.layers.split('|')));
  for (const button of bar.querySelectorAll('button')) {
    button.hidden = !offered.has(button.dataset.layer);
    button.addEventListener('click', () => {
      for (const p of pictures) {
        const { image, section: number, layers } = p.dataset;
        const layer = layers.split('|').includes(button.dataset.layer) ? button.dataset.layer : 'image';
        p.src = section(image, number, layer, 256);
      }
      for (const b of bar.querySelectorAll('button')) b.classList.toggle('on', b === button);
    });
  }
  bar.hidden = false;
}

function followSlider(form) {
  const plane = document.getElementById('plane');
  form.querySelector('button').hidden = true;
  form.addEventListener('input', () => {
    const number = Number(form.section.value);
    form.querySelector('output').value = number;
    plane.src = section(plane.dataset.image, number, form.layer.value, 1024);
    for (const r of document.querySelectorAll('.here')) {
      r.toggleAttribute('hidden', number < Number(r.dataset.low) || number >= Number(r.dataset.high));
    }
  });
}

function refresh(part) {
  setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetch(part.dataset.refresh).catch(() => null);
    if (answer && answer.ok) part.innerHTML = await answer.text();
  }, 1000 * Number(part.dataset.seconds));
}

function followLog(log) {
  log.scrollTop = log.scrollHeight;
  const seconds = Number(log.dataset.seconds);
  if (!seconds) return;
  const query = new URLSearchParams(location.search);
  query.set('text', 'true');
  setInterval(async () => {
    const answer = await fetch('?' + query).catch(() => null);
    if (!answer || !answer.ok) return;
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;
    log.textContent = await answer.text();
    if (atEnd) log.scrollTop = log.scrollHeight;
  }, 1000 * seconds);
}

const start = (id, what) => { const e = document.getElementById(id); if (e) what(e); };
start('layers', switchLayers);
start('viewer', followSlider);
start('progress', refresh);
start('log', followLog);
