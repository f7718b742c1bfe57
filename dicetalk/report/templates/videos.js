// Videos of one group start together and start over together; a click gives one of them the sound.
for (const group of document.querySelectorAll("[data-together]")) {
  const videos = [...group.querySelectorAll("video")];
  const restart = () => videos.forEach((video) => { video.currentTime = 0; video.play().catch(() => {}); });
  videos.forEach((video) => { video.loop = false; });
  videos[0]?.addEventListener("ended", restart);
  for (const video of videos) {
    video.addEventListener("click", () => {
      const heard = video.muted;
      document.querySelectorAll("video").forEach((other) => { other.muted = true; other.classList.remove("heard"); });
      video.muted = !heard;
      video.classList.toggle("heard", heard);
      restart();
    });
  }
  Promise.all(videos.map((video) => video.readyState > 2 ||
    new Promise((done) => video.addEventListener("canplay", done, { once: true })))).then(restart);
}
