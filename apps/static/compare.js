// The page 'VAE against diffusion'.
